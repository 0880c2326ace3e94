# What the fuzzers and the native test of their regressions are made from.
set(edge_fuzz_sources)
foreach(name IN ITEMS chat loader sampler text tokenizer)
  list(APPEND edge_fuzz_sources "${CMAKE_CURRENT_LIST_DIR}/${name}.cpp")
endforeach()
cmake_path(GET CMAKE_CURRENT_LIST_DIR PARENT_PATH edge_tests_folder)
list(APPEND edge_fuzz_sources "${edge_tests_folder}/native/damage.cpp" "${edge_tests_folder}/native/small_artifact.cpp"
  "${PROJECT_SOURCE_DIR}/device/engine/run/chat_format.cpp")
set(edge_fuzz_includes "${edge_tests_folder}" "${edge_tests_folder}/native" "${CMAKE_CURRENT_LIST_DIR}")
