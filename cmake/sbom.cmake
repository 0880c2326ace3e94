# Writes what of others is compiled into a wheel to edgesdk.cdx.json (CycloneDX) in *.dist-info/sboms, where PEP 770 wants it.
# Versions are read from the headers that the compiler reads. What a wheel needs beside it stands in its METADATA.

# Joins the numbers of `#define NAME_MAJOR 1`, `_MINOR` and `_PATCH`.
function(edge_version_of header name out)
  set(parts "")
  foreach(part MAJOR MINOR PATCH)
    file(STRINGS "${header}" line REGEX "^#define ${name}_${part} +[0-9]+")
    if(NOT line MATCHES "${name}_${part} +([0-9]+)")
      message(FATAL_ERROR "${header} does not define ${name}_${part}: the versions in the wheel's SBOM come from there")
    endif()
    list(APPEND parts "${CMAKE_MATCH_1}")
  endforeach()
  list(JOIN parts "." version)
  set(${out} "${version}" PARENT_SCOPE)
endfunction()

execute_process(COMMAND "${Python_EXECUTABLE}" -m nanobind --include_dir OUTPUT_STRIP_TRAILING_WHITESPACE
                OUTPUT_VARIABLE edge_nanobind_include COMMAND_ERROR_IS_FATAL ANY)
edge_version_of("${edge_nanobind_include}/nanobind/nanobind.h" NB_VERSION edge_nanobind_version)
edge_version_of("${edge_nanobind_include}/../ext/robin_map/include/tsl/robin_growth_policy.h" TSL_RH_VERSION
                edge_robin_map_version)
if(nlohmann_json_FOUND)
  set(edge_json_version "${nlohmann_json_VERSION}")
else()
  edge_version_of("${NLOHMANN_JSON_INCLUDE}/nlohmann/detail/abi_macros.hpp" NLOHMANN_JSON_VERSION edge_json_version)
endif()
configure_file("${CMAKE_CURRENT_LIST_DIR}/sbom.cdx.json.in" "${CMAKE_CURRENT_BINARY_DIR}/edgesdk.cdx.json" @ONLY)
install(FILES "${CMAKE_CURRENT_BINARY_DIR}/edgesdk.cdx.json" DESTINATION "${SKBUILD_METADATA_DIR}/sboms")
