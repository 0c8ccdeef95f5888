/* Whole sequences of recurrent cells.  p is (steps, rows, gates * n), w (n, gates * n), states (rows, n), mask (steps, rows);
 * h, c and g are (steps, rows, n).  b, mask and the gradients that arrive may be NULL.  All sizes at least 1. */
#define KEYDNN_RECURRENT(K, T, S) \
  K(T, S, rnn, \
    (const T* p, const T* w, const T* b, const T* h0, const T* mask, T* h, T* last, int64_t steps, int64_t rows, int64_t n, int64_t reverse), \
    (p, w, b, h0, mask, h, last, steps, rows, n, reverse)) \
  K(T, S, rnn_grad, \
    (const T* g, const T* g_last, const T* h, const T* w, const T* h0, const T* mask, T* dp, T* dw, T* db, T* dh0, int64_t steps, \
     int64_t rows, int64_t n, int64_t reverse), \
    (g, g_last, h, w, h0, mask, dp, dw, db, dh0, steps, rows, n, reverse)) \
  K(T, S, lstm, \
    (const T* p, const T* w, const T* b, const T* h0, const T* c0, const T* mask, T* h, T* last, T* c_last, T* c, T* gates, int64_t steps, \
     int64_t rows, int64_t n, int64_t reverse), \
    (p, w, b, h0, c0, mask, h, last, c_last, c, gates, steps, rows, n, reverse)) \
  K(T, S, lstm_grad, \
    (const T* g, const T* g_h, const T* g_c, const T* gates, const T* c, const T* h, const T* w, const T* h0, const T* c0, const T* mask, \
     T* dp, T* dw, T* db, T* dh0, T* dc0, int64_t steps, int64_t rows, int64_t n, int64_t reverse), \
    (g, g_h, g_c, gates, c, h, w, h0, c0, mask, dp, dw, db, dh0, dc0, steps, rows, n, reverse)) \
  K(T, S, gru, \
    (const T* p, const T* w, const T* b_ih, const T* b_hh, const T* h0, const T* mask, T* h, T* last, T* gates, int64_t steps, \
     int64_t rows, int64_t n, int64_t reverse, int64_t after), \
    (p, w, b_ih, b_hh, h0, mask, h, last, gates, steps, rows, n, reverse, after)) \
  K(T, S, gru_grad, \
    (const T* g, const T* g_last, const T* gates, const T* h, const T* w, const T* h0, const T* mask, T* dp, T* dw, T* db_ih, T* db_hh, \
     T* dh0, int64_t steps, int64_t rows, int64_t n, int64_t reverse, int64_t after), \
    (g, g_last, gates, h, w, h0, mask, dp, dw, db_ih, db_hh, dh0, steps, rows, n, reverse, after))
