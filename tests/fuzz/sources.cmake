# What the fuzzers and the native tests share: small artifacts and their damage, and what the fuzzers run.
cmake_path(GET CMAKE_CURRENT_LIST_DIR PARENT_PATH edge_tests_folder)
if(NOT TARGET edge_test_artifacts)
  add_library(edge_test_artifacts STATIC
    "${edge_tests_folder}/native/damage.cpp" "${edge_tests_folder}/native/small_artifact.cpp")
  target_include_directories(edge_test_artifacts PUBLIC "${edge_tests_folder}/native")
  target_link_libraries(edge_test_artifacts PUBLIC edge_engine)
  target_compile_options(edge_test_artifacts PRIVATE -ffp-contract=off)
endif()

set(edge_fuzz_sources "${PROJECT_SOURCE_DIR}/device/engine/run/chat_format.cpp")
foreach(name IN ITEMS chat loader sampler text tokenizer)
  list(APPEND edge_fuzz_sources "${CMAKE_CURRENT_LIST_DIR}/${name}.cpp")
endforeach()
