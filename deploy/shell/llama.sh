# shellcheck shell=bash
# llama.cpp, compiled for this very processor. To be sourced, after progress.sh.
# In: ROOT (the checkout), VENV (the environment it goes into). The wheel is kept, for the next environment.

COMPILE_MB=600      # measured: 420 of temporary files while llama.cpp is compiled
MB_PER_COMPILER=700 # the largest source file of llama.cpp takes 400, and some slack

short_hash() { sha256sum | cut -c1-16; }

# Code compiled for this processor may not run on another, so what was built elsewhere is built anew.
processor() {
    uname -m
    grep -m1 -E '^(flags|Features)' /proc/cpuinfo || true
}

llama_version() { sed -n 's/^llama-cpp-python==//p' "$ROOT/constraints.txt"; }

# CMAKE_ARGS="-DGGML_CUDA=on", given once, is remembered in the environment's folder: a later run without must
# not undo it.
user_cmake_args() {
    if [[ -n ${CMAKE_ARGS+set} ]]; then
        say "$CMAKE_ARGS"
    elif [[ -r $VENV/cmake-args ]]; then
        cat "$VENV/cmake-args"
    fi
}

llama_key() { { processor; llama_version; say "$(user_cmake_args)"; cat "$ROOT/deploy/llama-build.cmake"; } | short_hash; }

pip() { "$VENV/bin/python" -m pip "$@" --disable-pip-version-check; }

num_compilers() {
    local by_memory
    by_memory=$(awk -v each="$MB_PER_COMPILER" '/^MemAvailable/ {print int($2 / 1024 / each)}' /proc/meminfo)
    ((by_memory >= 1)) || by_memory=1
    if ((by_memory < $(nproc))); then say "$by_memory"; else nproc; fi
}

# Builds the wheel into a cache of our own: pip's knows neither the processor nor the build settings.
build_llama() {
    local wheels=$1 partial=$1.partial
    require_disk "${TMPDIR:-/tmp}" "$COMPILE_MB"
    rm -rf "$partial"
    export CMAKE_ARGS="-DLLAVA_BUILD=OFF -DCMAKE_PROJECT_llama.cpp_INCLUDE='$ROOT/deploy/llama-build.cmake' $2"
    export CMAKE_BUILD_PARALLEL_LEVEL=${CMAKE_BUILD_PARALLEL_LEVEL:-$(num_compilers)}
    step "compiling llama.cpp for this processor, 2 to 10 minutes" \
        pip wheel -v --no-cache-dir --no-deps --no-binary llama-cpp-python \
        --build-constraint "$ROOT/constraints.txt" --wheel-dir "$partial" "llama-cpp-python==$(llama_version)"
    rm -rf "$wheels"
    mv "$partial" "$wheels"
}

# install_llama CACHE: CACHE is the folder where wheels are kept.
install_llama() {
    local key cmake_args wheels stamp=$VENV/hunch-llama # the key of the llama.cpp that is installed
    key=$(llama_key)
    cmake_args=$(user_cmake_args)
    wheels=$1/llama-cpp-python-$key
    if [[ $(cat "$stamp" 2>/dev/null) != "$key" ]]; then
        mkdir -p "$1"
        compgen -G "$wheels/*.whl" >/dev/null || (build_llama "$wheels" "$cmake_args")
        step "installing llama.cpp" pip install --no-deps --force-reinstall "$wheels"/*.whl
        say "$key" >"$stamp"
    fi
    say "$cmake_args" >"$VENV/cmake-args"
}
