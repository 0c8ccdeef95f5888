// Convolution and pooling.  integers of the convolutions: the fields of keydnn_conv_shape in their order.
#include "entries.h"
#include "keydnn/conv_finish.h"

namespace keydnn::plan {
namespace {

keydnn_conv_shape shape_of(const Call& call) {
  const int64_t* n = call.n;
  return {n[0], n[1], n[2], n[3], n[4], n[5], n[6], n[7], n[8], n[9], n[10], n[11], n[12], n[13], n[14], n[15]};
}

// places: x, w, bias or null, y
template <class T>
int conv2d(const Call& call) {
  const keydnn_conv_shape s = shape_of(call);
  return api::conv2d(static_cast<const T*>(at<T>(call, 0)), static_cast<const T*>(at<T>(call, 1)),
                     static_cast<const T*>(at<T>(call, 2)), at<T>(call, 3), &s);
}

// places: x, w, bias or null, y, code (uint8)
template <class T>
int conv2d_relu_maxpool(const Call& call) {
  const keydnn_conv_shape s = shape_of(call);
  return api::conv2d_relu_maxpool(at<const T>(call, 0), at<const T>(call, 1), at<const T>(call, 2), at<T>(call, 3), at<uint8_t>(call, 4), &s);
}

// places: x, w, bias or null, mean or null, scale or null, beta or null, y, code (uint8) or null; one more integer: relu
template <class T>
int conv2d_finish(const Call& call) {
  const keydnn_conv_shape s = shape_of(call);
  return api::conv2d_finish(at<const T>(call, 0), at<const T>(call, 1), at<const T>(call, 2), at<const T>(call, 3), at<const T>(call, 4),
                            at<const T>(call, 5), at<T>(call, 6), at<uint8_t>(call, 7), &s, static_cast<int>(call.n[16]));
}

// places: g, w, dx
template <class T>
int conv2d_grad_x(const Call& call) {
  const keydnn_conv_shape s = shape_of(call);
  return api::conv2d_grad_x(static_cast<const T*>(at<T>(call, 0)), static_cast<const T*>(at<T>(call, 1)), at<T>(call, 2), &s);
}

// places: x, g, dw
template <class T>
int conv2d_grad_w(const Call& call) {
  const keydnn_conv_shape s = shape_of(call);
  return api::conv2d_grad_w(static_cast<const T*>(at<T>(call, 0)), static_cast<const T*>(at<T>(call, 1)), at<T>(call, 2), &s);
}

// places: x, g, dw, db
template <class T>
int conv2d_grad_wb(const Call& call) {
  const keydnn_conv_shape s = shape_of(call);
  return api::conv2d_grad_wb(at<const T>(call, 0), at<const T>(call, 1), at<T>(call, 2), at<T>(call, 3), &s);
}

// integers of the pools: the fields of keydnn_pool_shape in their order
keydnn_pool_shape pool_of(const Call& call) {
  const int64_t* n = call.n;
  return {n[0], n[1], n[2], n[3], n[4], n[5], n[6], n[7], n[8], n[9], n[10]};
}

// places: x, y, argmax (int64)
template <class T>
int maxpool2d(const Call& call) {
  const keydnn_pool_shape s = pool_of(call);
  return api::maxpool2d(static_cast<const T*>(at<T>(call, 0)), at<T>(call, 1), at<int64_t>(call, 2), &s);
}

// places: g, argmax, dx
template <class T>
int maxpool2d_grad(const Call& call) {
  const keydnn_pool_shape s = pool_of(call);
  return api::maxpool2d_grad(static_cast<const T*>(at<T>(call, 0)), static_cast<const int64_t*>(at<int64_t>(call, 1)), at<T>(call, 2), &s);
}

// places: x, y
template <class T>
int avgpool2d(const Call& call) {
  const keydnn_pool_shape s = pool_of(call);
  return api::avgpool2d(static_cast<const T*>(at<T>(call, 0)), at<T>(call, 1), &s);
}

// places: g, dx
template <class T>
int avgpool2d_grad(const Call& call) {
  const keydnn_pool_shape s = pool_of(call);
  return api::avgpool2d_grad(static_cast<const T*>(at<T>(call, 0)), at<T>(call, 1), &s);
}

// places: x, y; integers: planes, size
template <class T>
int plane_mean(const Call& call) {
  return api::plane_mean(static_cast<const T*>(at<T>(call, 0)), at<T>(call, 1), call.n[0], call.n[1]);
}

// places: x, y, code (uint8); integers: planes, h, w
template <class T>
int relu_maxpool(const Call& call) {
  return api::relu_maxpool(at<const T>(call, 0), at<T>(call, 1), at<uint8_t>(call, 2), call.n[0], call.n[1], call.n[2]);
}

// places: g, code, dx; integers: planes, h, w
template <class T>
int relu_maxpool_grad(const Call& call) {
  return api::relu_maxpool_grad(at<const T>(call, 0), at<const uint8_t>(call, 1), at<T>(call, 2), call.n[0], call.n[1], call.n[2]);
}

}  // namespace

void add_conv(Table& table) {
  KEYDNN_ENTER(table, conv2d);
  KEYDNN_ENTER(table, conv2d_relu_maxpool);
  KEYDNN_ENTER(table, conv2d_finish);
  KEYDNN_ENTER(table, conv2d_grad_x);
  KEYDNN_ENTER(table, conv2d_grad_w);
  KEYDNN_ENTER(table, conv2d_grad_wb);
  KEYDNN_ENTER(table, maxpool2d);
  KEYDNN_ENTER(table, maxpool2d_grad);
  KEYDNN_ENTER(table, avgpool2d);
  KEYDNN_ENTER(table, avgpool2d_grad);
  KEYDNN_ENTER(table, plane_mean);
  KEYDNN_ENTER(table, relu_maxpool);
  KEYDNN_ENTER(table, relu_maxpool_grad);
}

}  // namespace keydnn::plan
