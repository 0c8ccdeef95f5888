// Convolution and pooling.  integers of the convolutions: the fields of keydnn_conv_shape in their order.
#include "entries.h"

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

}  // namespace

void add_conv(Table& table) {
  KEYDNN_ENTER(table, conv2d);
  KEYDNN_ENTER(table, conv2d_grad_x);
  KEYDNN_ENTER(table, conv2d_grad_w);
}

}  // namespace keydnn::plan
