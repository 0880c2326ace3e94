"""Lists what each level of an artifact needs, then picks the largest one for a budget: by hand, and by the engine.

python examples/pick_a_level.py [FILE.edge] [BUDGET_BYTES]
"""

import sys

import edgesdk

path = sys.argv[1] if len(sys.argv) > 1 else "build/demo/smollm2.edge"
context = 512

model = edgesdk.load(path, level=0, context=context)
totals = [model.estimate(level.index, context).total_bytes for level in model.levels]
for level, total in zip(model.levels, totals, strict=True):
    quality = "not measured" if level.perplexity is None else f"{level.perplexity:.2f}"
    print(f"level {level.index}: rate {level.rate:.3f}, {total / 1e6:7.2f} MB in all, perplexity {quality}")

budget = int(sys.argv[2]) if len(sys.argv) > 2 else totals[len(totals) // 2]
by_hand = max((index for index, total in enumerate(totals) if total <= budget), default=None)
try:
    chosen = edgesdk.load(path, budget=budget, context=context).level
except edgesdk.MemoryBudgetError as error:
    chosen = None
    print(f"error: {error}")
print(f"budget of {budget} bytes: level {by_hand} by hand, level {chosen} by the engine")
