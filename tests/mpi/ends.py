"""Trains for a while, until rank 1 does something else: python ends.py HOW."""

import os
import signal
import sys
import threading
import time

import numpy as np

from minicnn import Tensor, distributed, nn, optim


def memory():
    raise MemoryError("no memory left for this test")


def value():
    raise ValueError("this is what went wrong")


def thread():
    running = threading.Thread(target=value)
    running.start()
    time.sleep(60)


HOW = {
    "raises": value,
    "memory": memory,
    "exits": lambda: sys.exit(0),
    "fails": lambda: sys.exit("this program says why"),
    "interrupted": lambda: os.kill(os.getpid(), signal.SIGINT),
    "killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "stopped": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "sleeps": lambda: time.sleep(60),
    "slow": lambda: time.sleep(1.5),
    "thread": thread,
}
# Seconds that the other rank waits. Only so does it find out that one sleeps, or has ended without an error. One that
# says why it ends must have the time to, on cores that other programs use as well.
LIMIT = {"exits": 1.0, "fails": 4.0, "sleeps": 1.0, "stopped": 1.0, "thread": 1.0}


def main(how):
    workers = distributed.start(limit=LIMIT.get(how, 20.0))
    net = nn.Linear(3, 2)
    parallel, optimizer = distributed.DataParallel(net, workers), optim.SGD(net.parameters(), 0.1)
    for i in range(20):
        if workers.rank == 1 and i == 5:
            HOW[how]()
        with parallel.step(2) as step:
            net.zero_grad()
            step.backward(net(Tensor(np.ones((2, 3), np.float32))).sum())
        parallel.update(optimizer)
    print(f"rank {workers.rank} is done", flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
