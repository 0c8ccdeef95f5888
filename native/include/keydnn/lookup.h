/* Rows of a table by number, and masks of padded sequences.  index and lengths are int64; padding is a row number, or -1 for none.
 *
 * embedding: y (count, n) = rows of w (size, n); zeros where the index is padding.  embedding_grad: dw (size, n) = the rows of
 * g (count, n) added up in order.  Numbers in [-size, size) count, negative ones from the end; others are KEYDNN_BAD_INDEX.
 * sequence_mask: m (steps, rows) is 1 where the step is below the row's length.
 * tril: x (count, rows, columns) with 0 where the column is above row + k; triu: below. */
#define KEYDNN_LOOKUP(K, T, S) \
  K(T, S, embedding, (const T* w, const int64_t* index, T* y, int64_t size, int64_t n, int64_t count, int64_t padding), \
    (w, index, y, size, n, count, padding)) \
  K(T, S, embedding_grad, (const T* g, const int64_t* index, T* dw, int64_t size, int64_t n, int64_t count, int64_t padding), \
    (g, index, dw, size, n, count, padding)) \
  K(T, S, sequence_mask, (const int64_t* lengths, T* m, int64_t steps, int64_t rows), (lengths, m, steps, rows)) \
  K(T, S, triangle, (const T* x, T* y, int64_t count, int64_t rows, int64_t columns, int64_t k, int64_t lower), \
    (x, y, count, rows, columns, k, lower))
