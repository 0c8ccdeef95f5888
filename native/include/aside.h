// A job aside: threads that find nothing else to do take its chunks, until aside_finish() does what is left and waits for
// the rest.
//
// There is one at a time in the process; aside_begin() answers false while another thread has it, and nothing was begun.
// Nobody is woken for it.  Chunks should be short (2 us), since a thread that is in one comes late to the next
// parallel_for.  Not for use inside a body.
#pragma once
#include <stdint.h>

namespace keydnn {

bool aside_begin(int64_t chunks, void (*body)(void* context, int64_t chunk), void* context);  // at most 2^20 - 1 chunks
void aside_finish();

}  // namespace keydnn
