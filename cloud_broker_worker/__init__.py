"""The cloud: gather the drafts of all boards, run the target model over them, send verdicts."""
