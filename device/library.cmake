# libedge.so and libedge.a, and what other builds need to find them: a CMake package (edge::edge, edge::edge_static), a
# pkg-config file, and the sources of the Java binding.
include(CMakePackageConfigHelpers)
include(GNUInstallDirs)

# Only the functions of edge.h can be seen from outside.
add_library(edge SHARED $<TARGET_OBJECTS:edge_objects>)
target_link_libraries(edge PRIVATE edge_kernels Threads::Threads ${CMAKE_DL_LIBS})
target_link_options(edge PRIVATE "-Wl,--version-script=${CMAKE_CURRENT_SOURCE_DIR}/edge.map")
set_target_properties(edge PROPERTIES LINK_DEPENDS "${CMAKE_CURRENT_SOURCE_DIR}/edge.map")

add_library(edge_static STATIC $<TARGET_OBJECTS:edge_objects> $<TARGET_OBJECTS:edge_kernels>)
target_link_libraries(edge_static PUBLIC Threads::Threads ${CMAKE_DL_LIBS})
set_target_properties(edge_static PROPERTIES OUTPUT_NAME edge)

foreach(library edge edge_static)
  target_include_directories(${library} INTERFACE "$<BUILD_INTERFACE:${CMAKE_CURRENT_SOURCE_DIR}/engine>"
                                                  "$<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>")
endforeach()

set(edge_package "${CMAKE_INSTALL_LIBDIR}/cmake/edge")
install(TARGETS edge edge_static EXPORT edge-targets
  LIBRARY DESTINATION "${CMAKE_INSTALL_LIBDIR}" ARCHIVE DESTINATION "${CMAKE_INSTALL_LIBDIR}")
install(EXPORT edge-targets NAMESPACE edge:: DESTINATION "${edge_package}")
configure_package_config_file("${PROJECT_SOURCE_DIR}/cmake/edge-config.cmake.in" edge-config.cmake
  INSTALL_DESTINATION "${edge_package}")
write_basic_package_version_file(edge-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES "${CMAKE_CURRENT_BINARY_DIR}/edge-config.cmake" "${CMAKE_CURRENT_BINARY_DIR}/edge-config-version.cmake"
  DESTINATION "${edge_package}")

set(edge_cxx_runtime c++)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  set(edge_cxx_runtime stdc++)
endif()
configure_file("${PROJECT_SOURCE_DIR}/cmake/edge.pc.in" edge.pc @ONLY)
install(FILES "${CMAKE_CURRENT_BINARY_DIR}/edge.pc" DESTINATION "${CMAKE_INSTALL_LIBDIR}/pkgconfig")

install(DIRECTORY java DESTINATION .)
