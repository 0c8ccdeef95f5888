# Fails when an object compiled for one instruction set defines a symbol that the linker may share with the others: an
# inline function or template outside of an unnamed namespace.  Its AVX-512 form could then run on a machine without it.
execute_process(COMMAND ${NM} ${OBJECTS} OUTPUT_VARIABLE symbols RESULT_VARIABLE failed)
string(REGEX MATCHALL "[^\n]* [WVu] [^\n]*" shared "${symbols}")
if(shared AND NOT failed)
  string(REPLACE ";" "\n" shared "${shared}")
  message(FATAL_ERROR "kernels must not define shared symbols, see native/include/keydnn.h:\n${shared}")
endif()
