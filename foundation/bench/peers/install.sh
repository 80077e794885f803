#!/bin/sh
# Installs a peer of the benchmark into an environment of its own: sh install.sh vllm|llama_cpp PYTHON
# Run in the top folder, as often as you like. Versions stand in vllm.txt and llama_cpp.txt; the file .installed marks a
# complete environment.
set -eu
peer="$1" python="$2"
here=$(dirname "$0")
pins="$here/$peer.txt"
home=".peers/$peer"
pip="$home/bin/python -m pip --disable-pip-version-check install --quiet"

vllm() {
    echo "Installing vLLM's CPU build (2.5 GB, minutes) …"
    $pip --constraint "$pins" torch
    # Not what it asks for beside torch: torchvision, torchaudio and torchcodec do not import beside the CPU's torch.
    $pip --no-deps --requirement "$pins"
    VLLM_LOGGING_LEVEL=ERROR "$home/bin/python" -W ignore -c 'from vllm import LLM'
}

llama_cpp() {
    echo "Compiling llama.cpp for this processor (several minutes) …"
    if ! command -v c++ >/dev/null 2>&1; then
        echo "llama.cpp is compiled here and needs a C++ compiler (on Debian or Ubuntu: apt-get install g++)" >&2
        exit 2
    fi
    $pip --constraint "$pins" scipy-openblas32 # fp32 products a quarter faster than llama.cpp's own, under prefixed names
    blas=$("$home/bin/python" -c 'import scipy_openblas32 as blas; print(blas.get_lib_dir())')
    for name in cblas_sgemm openblas_set_num_threads openblas_get_parallel; do
        renamed="${renamed:-} -D$name=scipy_$name"
    done
    options="-DGGML_NATIVE=ON -DGGML_BLAS=ON -DGGML_BLAS_VENDOR=OpenBLAS -DLLAVA_BUILD=OFF"
    paths="-DBLAS_LIBRARIES=$blas/libscipy_openblas.so -DBLAS_INCLUDE_DIRS=$blas/../include"
    # Not from pip's cache, which may hold what was compiled with other options.
    CXXFLAGS="$renamed" LDFLAGS="-Wl,-rpath,$blas" CMAKE_ARGS="$options $paths" \
        $pip --no-cache-dir --no-binary llama-cpp-python --requirement "$pins"
    "$home/bin/python" -c 'import llama_cpp'
}

trap '[ -e "$home/.installed" ] || echo "$peer cannot be had here: prismrank bench score goes on without it" >&2' EXIT
rm -f "$home/.installed"
"$python" -m venv "$home"
"$peer"
touch "$home/.installed"
