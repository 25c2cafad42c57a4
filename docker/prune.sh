#!/bin/sh
# Removes from site-packages what the service never loads: two fifths of it.
#
#   prune.sh SITE_PACKAGES
set -eu
cd "$1"

# Arrow: the service writes IPC streams and Parquet, through nothing of these
rm -rf pyarrow/include pyarrow/includes pyarrow/src pyarrow/tests
rm -f pyarrow/_flight.* pyarrow/_s3fs.* pyarrow/_azurefs.* pyarrow/_gcsfs.* pyarrow/_hdfs.* \
    pyarrow/_dataset* pyarrow/_acero.* pyarrow/_substrait.* pyarrow/_orc.*
rm -f pyarrow/libarrow_flight* pyarrow/libarrow_s3* pyarrow/libarrow_python*.so
rm -f pyarrow/libarrow_python.so.*.*

# ONNX Runtime: tools that convert and quantise models, and a second copy of it for programs in C
rm -rf onnxruntime/transformers onnxruntime/quantization onnxruntime/tools onnxruntime/datasets
rm -f onnxruntime/capi/libonnxruntime.so*

# What compiles or tests against a package
rm -rf numpy/distutils numpy/random/examples numpy/_core/include numpy/_core/_simd.*.so
find . -depth -type d -name tests -exec rm -rf {} +
find . -type f \( -name '*.pyi' -o -name '*.px[di]' -o -name '*.pyx' -o -name '*.[ah]' \) -delete
# Colours for other languages than Python's, in whose tracebacks alone they are used
find pygments/lexers -name '*.py' ! -name '__init__.py' ! -name '_mapping.py' ! -name 'python.py' -delete

# Debugging symbols, and of Arrow those that are for linking
find av -name '*.so' -exec strip --strip-debug {} +
strip --strip-unneeded pyarrow/*.so* uvloop/*.so
