# Run as a test: what libedge.so exports, with versions, is what edge_symbols.txt lists.
#   cmake -DNM=nm -DLIBRARY=libedge.so -DLIST=edge_symbols.txt -P check_symbols.cmake
execute_process(COMMAND "${NM}" -D --defined-only --with-symbol-versions "${LIBRARY}"
  OUTPUT_VARIABLE output COMMAND_ERROR_IS_FATAL ANY)
string(REGEX MATCHALL "[^\n]+" lines "${output}")
set(found)
foreach(line IN LISTS lines)
  if(NOT line MATCHES " A [A-Z0-9_]+(@@[A-Z0-9_]+)?$")  # the version nodes themselves
    string(REGEX REPLACE "^[0-9a-f]+ [A-Za-z] " "" symbol "${line}")
    list(APPEND found "${symbol}")
  endif()
endforeach()
file(STRINGS "${LIST}" expected)
set(missing ${expected})
list(REMOVE_ITEM missing ${found})
set(surplus ${found})
list(REMOVE_ITEM surplus ${expected})
if(missing OR surplus)
  message(FATAL_ERROR "libedge.so exports other symbols than ${LIST}\nmissing: ${missing}\nsurplus: ${surplus}")
endif()
