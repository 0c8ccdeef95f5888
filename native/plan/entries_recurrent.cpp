// Recurrent sequences, attention, lookups, masks.
#include "entries.h"

namespace keydnn::plan {
namespace {

// integers of the recurrent entries: steps, rows, n, reverse[, reset_after]

// places: p, w, b, h0, mask, h, last
template <class T>
int rnn(const Call& call) {
  const int64_t* n = call.n;
  return api::rnn(at<const T>(call, 0), at<const T>(call, 1), at<const T>(call, 2), at<const T>(call, 3), at<const T>(call, 4),
                  at<T>(call, 5), at<T>(call, 6), n[0], n[1], n[2], n[3]);
}

// places: g, g_last, h, w, h0, mask, dp, dw (or none), db, dh0
template <class T>
int rnn_grad(const Call& call) {
  const int64_t* n = call.n;
  return api::rnn_grad(at<const T>(call, 0), at<const T>(call, 1), at<const T>(call, 2), at<const T>(call, 3), at<const T>(call, 4),
                       at<const T>(call, 5), at<T>(call, 6), at<T>(call, 7), at<T>(call, 8), at<T>(call, 9), n[0], n[1], n[2], n[3]);
}

// places: p, w, b, h0, c0, mask, h, last, c_last, c, gates
template <class T>
int lstm(const Call& call) {
  const int64_t* n = call.n;
  return api::lstm(at<const T>(call, 0), at<const T>(call, 1), at<const T>(call, 2), at<const T>(call, 3), at<const T>(call, 4),
                   at<const T>(call, 5), at<T>(call, 6), at<T>(call, 7), at<T>(call, 8), at<T>(call, 9), at<T>(call, 10), n[0], n[1], n[2],
                   n[3]);
}

// places: g, g_h, g_c, gates, c, h, w, h0, c0, mask, dp, dw, db, dh0, dc0
template <class T>
int lstm_grad(const Call& call) {
  const int64_t* n = call.n;
  return api::lstm_grad(at<const T>(call, 0), at<const T>(call, 1), at<const T>(call, 2), at<const T>(call, 3), at<const T>(call, 4),
                        at<const T>(call, 5), at<const T>(call, 6), at<const T>(call, 7), at<const T>(call, 8), at<const T>(call, 9),
                        at<T>(call, 10), at<T>(call, 11), at<T>(call, 12), at<T>(call, 13), at<T>(call, 14), n[0], n[1], n[2], n[3]);
}

// places: p, w, b_ih, b_hh, h0, mask, h, last, gates
template <class T>
int gru(const Call& call) {
  const int64_t* n = call.n;
  return api::gru(at<const T>(call, 0), at<const T>(call, 1), at<const T>(call, 2), at<const T>(call, 3), at<const T>(call, 4),
                  at<const T>(call, 5), at<T>(call, 6), at<T>(call, 7), at<T>(call, 8), n[0], n[1], n[2], n[3], n[4]);
}

// places: g, g_last, gates, h, w, h0, mask, dp, dw, db_ih, db_hh, dh0
template <class T>
int gru_grad(const Call& call) {
  const int64_t* n = call.n;
  return api::gru_grad(at<const T>(call, 0), at<const T>(call, 1), at<const T>(call, 2), at<const T>(call, 3), at<const T>(call, 4),
                       at<const T>(call, 5), at<const T>(call, 6), at<T>(call, 7), at<T>(call, 8), at<T>(call, 9), at<T>(call, 10),
                       at<T>(call, 11), n[0], n[1], n[2], n[3], n[4]);
}

// places: lengths, m; integers: steps, rows
template <class T>
int sequence_mask(const Call& call) {
  return api::sequence_mask(at<const int64_t>(call, 0), at<T>(call, 1), call.n[0], call.n[1]);
}

// places: w, index, y; integers: size, n, count, padding or -1
template <class T>
int embedding(const Call& call) {
  return api::embedding(at<const T>(call, 0), at<const int64_t>(call, 1), at<T>(call, 2), call.n[0], call.n[1], call.n[2], call.n[3]);
}

// places: g, index, dw; integers: size, n, count, padding or -1
template <class T>
int embedding_grad(const Call& call) {
  return api::embedding_grad(at<const T>(call, 0), at<const int64_t>(call, 1), at<T>(call, 2), call.n[0], call.n[1], call.n[2], call.n[3]);
}

// places: x, y; integers: planes, rows, columns, k, whether the lower one
template <class T>
int triangle(const Call& call) {
  return api::triangle(at<const T>(call, 0), at<T>(call, 1), call.n[0], call.n[1], call.n[2], call.n[3], call.n[4]);
}

// places: q, k, v, y, p; integers: n, steps, keys, heads, d; reals: scale
template <class T>
int attention(const Call& call) {
  const int64_t* n = call.n;
  return api::attention(at<const T>(call, 0), at<const T>(call, 1), at<const T>(call, 2), at<T>(call, 3), at<T>(call, 4), n[0], n[1], n[2],
                        n[3], n[4], call.f[0]);
}

// places: g, p, q, k, v, dq, dk, dv; integers: n, steps, keys, heads, d; reals: scale
template <class T>
int attention_grad(const Call& call) {
  const int64_t* n = call.n;
  return api::attention_grad(at<const T>(call, 0), at<const T>(call, 1), at<const T>(call, 2), at<const T>(call, 3), at<const T>(call, 4),
                             at<T>(call, 5), at<T>(call, 6), at<T>(call, 7), n[0], n[1], n[2], n[3], n[4], call.f[0]);
}

}  // namespace

void add_recurrent(Table& table) {
  KEYDNN_ENTER(table, rnn);
  KEYDNN_ENTER(table, rnn_grad);
  KEYDNN_ENTER(table, lstm);
  KEYDNN_ENTER(table, lstm_grad);
  KEYDNN_ENTER(table, gru);
  KEYDNN_ENTER(table, gru_grad);
  KEYDNN_ENTER(table, sequence_mask);
  KEYDNN_ENTER(table, embedding);
  KEYDNN_ENTER(table, embedding_grad);
  KEYDNN_ENTER(table, triangle);
  KEYDNN_ENTER(table, attention);
  KEYDNN_ENTER(table, attention_grad);
}

}  // namespace keydnn::plan
