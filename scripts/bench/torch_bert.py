#!/usr/bin/env python3
"""Times one BERT training step in PyTorch with transformers, for comparison with `lambert bench`.

    scripts/bench/torch_bert.py --model base --sequence-length 128 --micro-batch-size 8 --precision bf16

Measures the same work as `lambert bench`: forward, backward and LAMB on one synthetic batch, with the MLM head on the masked
positions only. Needs torch and transformers.
"""

import time

import torch
from bench_arguments import bench_arguments, report
from transformers import BertConfig, BertForPreTraining


@torch.no_grad()
def lamb(parameters, m, v, step, rate=1e-3, beta1=0.9, beta2=0.999, epsilon=1e-6, decay=0.01):
    """Applies one LAMB update with multi-tensor operations, the fastest form in PyTorch on any device."""
    gradients = [p.grad for p in parameters]
    torch._foreach_mul_(m, beta1)
    torch._foreach_add_(m, gradients, alpha=1 - beta1)
    torch._foreach_mul_(v, beta2)
    torch._foreach_addcmul_(v, gradients, gradients, 1 - beta2)
    denominator = torch._foreach_sqrt(torch._foreach_div(v, 1 - beta2**step))
    torch._foreach_add_(denominator, epsilon)
    update = torch._foreach_div(torch._foreach_div(m, 1 - beta1**step), denominator)
    torch._foreach_add_(update, parameters, alpha=decay)
    weights, updates = torch._foreach_norm(parameters), torch._foreach_norm(update)
    ratios = [torch.where((w > 0) & (u > 0), w / u, 1.0) for w, u in zip(weights, updates)]
    torch._foreach_mul_(update, ratios)
    torch._foreach_add_(parameters, update, alpha=-rate)


def main():
    args = bench_arguments(__doc__, lambda parser: parser.add_argument(
        "--compile", action="store_true", help="compile the forward and the backward pass with torch.compile",
    ))
    torch.set_default_device(args.platform)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=args.vocab_size, num_hidden_layers=args.layers, hidden_size=args.hidden_size,
        num_attention_heads=args.hidden_size // 64, intermediate_size=4 * args.hidden_size,
        hidden_dropout_prob=args.dropout, attention_probs_dropout_prob=args.dropout,
    )
    model = BertForPreTraining(config).train()
    parameters = list(model.parameters())
    m, v = ([torch.zeros_like(p) for p in parameters] for _ in range(2))

    rows, length, predictions = args.micro_batch_size, args.sequence_length, args.max_predictions_per_seq
    ids = torch.randint(5, args.vocab_size, (rows, length))
    types = (torch.arange(length) >= length // 2).long().expand(rows, length)
    mask = torch.ones(rows, length, dtype=torch.long)
    positions = torch.stack([torch.randperm(length - 1)[:predictions] + 1 for _ in range(rows)])
    targets = torch.randint(5, args.vocab_size, (rows * predictions,))
    labels = torch.randint(0, 2, (rows,))
    cross_entropy = torch.nn.functional.cross_entropy

    def forward():
        with torch.autocast(args.platform, dtype=torch.bfloat16, enabled=args.precision == "bf16"):
            hidden, pooled = model.bert(ids, mask, types, return_dict=False)
            picked = hidden.gather(1, positions[..., None].expand(-1, -1, hidden.shape[-1]))
            mlm, nsp = model.cls(picked.reshape(rows * predictions, -1), pooled)
        return cross_entropy(mlm.float(), targets) + cross_entropy(nsp.float(), labels)

    loss_of = torch.compile(forward) if args.compile else forward

    def step(number):
        model.zero_grad(set_to_none=True)
        loss = loss_of()
        loss.backward()
        lamb(parameters, m, v, number)
        return loss.item()

    seconds = []
    for number in range(1, args.steps + 3):  # two steps warm up
        begin = time.perf_counter()
        loss = step(number)
        seconds.append(time.perf_counter() - begin)
    # The first step compiles.
    more = {"compile_seconds": seconds[0]} if args.compile else {}
    peak = torch.cuda.max_memory_allocated() if args.platform == "cuda" else None
    report(args, f"PyTorch {torch.__version__}", seconds[2:], loss=loss, device_peak_bytes=peak, **more)


if __name__ == "__main__":
    main()
