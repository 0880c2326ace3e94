# Provides nlohmann_json::nlohmann_json, headers only. In this order: -DNLOHMANN_JSON_INCLUDE=DIR, an installed CMake
# package (Debian: nlohmann-json3-dev), the PyPI package `nlohmann-json` of the Python found or given by Python_EXECUTABLE.
set(NLOHMANN_JSON_INCLUDE "" CACHE PATH "Folder that contains nlohmann/json.hpp")

if(NOT NLOHMANN_JSON_INCLUDE)
  find_package(nlohmann_json 3.11 QUIET)
  if(nlohmann_json_FOUND)
    return()
  endif()
  find_package(Python 3.10 QUIET COMPONENTS Interpreter)
  if(Python_Interpreter_FOUND)
    execute_process(
      COMMAND "${Python_EXECUTABLE}" -c
              "import importlib.util as u, pathlib as p; print(p.Path(u.find_spec('nlohmann_json').origin).parent / 'include')"
      OUTPUT_VARIABLE edge_json_include OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE edge_json_status)
    if(edge_json_status EQUAL 0)
      set_property(CACHE NLOHMANN_JSON_INCLUDE PROPERTY VALUE "${edge_json_include}")
    endif()
  endif()
endif()

if(NOT EXISTS "${NLOHMANN_JSON_INCLUDE}/nlohmann/json.hpp")
  message(FATAL_ERROR "nlohmann/json.hpp was not found.\n"
                      "hint: `pip install nlohmann-json`, or install nlohmann-json3-dev, or give -DNLOHMANN_JSON_INCLUDE=DIR")
endif()
add_library(nlohmann_json::nlohmann_json INTERFACE IMPORTED)
set_target_properties(nlohmann_json::nlohmann_json PROPERTIES
  INTERFACE_INCLUDE_DIRECTORIES "${NLOHMANN_JSON_INCLUDE}"
  INTERFACE_SYSTEM_INCLUDE_DIRECTORIES "${NLOHMANN_JSON_INCLUDE}")
