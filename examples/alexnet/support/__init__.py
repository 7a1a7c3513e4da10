"""The parts that the programs in the folder above share. Nobody needs to read them to see how
AlexNet is trained.

start.py         the start of a training: --resume, --from, --freeze, and what it prints
options.py       command lines, and how a user's mistake ends in one line
recipes.py       the three recipes, side by side with the paper's sections
images.py        data sets, and how the network sees an image
runs.py          the folder of a run, and its checkpoints
parallel.py      how several processes divide a training
drawing.py       curves and filters; confusion.py has the confusion matrix
weight_files.py  weights of PyTorch, NumPy and safetensors; onnx_format.py has ONNX's
installed.py     the message if minicnn is not installed
"""
