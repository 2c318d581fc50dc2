"""The torch side of `cargo xtask bench stats`: the time of torch.nn.utils.clip_grad_norm_ on CPU.

Usage: torch_clip.py THREADS. It first says which torch it has, `torch VERSION`, then answers each
line on standard input with one line, or with `error: ` and why:

    LIST define N1 N2 ...                parameters of so many elements  -> defined
    LIST torch_clip_grad_norm REPEATS    so many clips in a row          -> the median, milliseconds
"""

import statistics
import sys
import time


def main():
    try:
        import torch

        torch.set_num_threads(int(sys.argv[1]))
    except Exception as error:  # an installation can be broken in more ways than ImportError
        say(complaint(error))
        return
    say(f"torch {torch.__version__}")
    defined, parameters = None, []
    for line in sys.stdin:
        name, what, *numbers = line.split()
        try:
            if what == "define":
                parameters.clear()  # the old list goes before the new one comes
                parameters.extend(parameter(torch, int(length)) for length in numbers)
                defined = name
                say("defined")
            elif what == "torch_clip_grad_norm" and name == defined:
                say(statistics.median(clip(torch, parameters) for _ in range(int(numbers[0]))))
            else:
                say(f"error: got `{name} {what}`, want a clip of the list defined last: {defined}")
        except Exception as error:
            say(complaint(error))


def parameter(torch, length):
    """Only the gradient is read and written; the parameter has its length."""
    made = torch.nn.Parameter(torch.empty(length))
    made.grad = torch.randn(length) * 1e-3
    return made


def clip(torch, parameters):
    start = time.perf_counter()
    # the same work as with a limit that is reached: torch multiplies by 1
    torch.nn.utils.clip_grad_norm_(parameters, max_norm=1e9)
    return (time.perf_counter() - start) * 1e3


def complaint(error):
    words = " ".join(str(error).split())
    return f"error: {type(error).__name__}: {words}"


def say(answer):
    print(answer, flush=True)


main()
