# Read by CMake right after llama.cpp's own project() (CMAKE_PROJECT_llama.cpp_INCLUDE).
# llama-cpp-python forces the command line helpers of llama.cpp (library llama-common) into its build;
# Python never loads them. A plain variable shadows that cache entry and leaves them out.
set(LLAMA_BUILD_COMMON OFF)
