"""Loads an artifact at the largest level that fits this machine's free memory, and continues a text.

python examples/quickstart.py [FILE.edge] [PROMPT]
"""

import sys

import edgesdk

path = sys.argv[1] if len(sys.argv) > 1 else "build/demo/smollm2.edge"
prompt = sys.argv[2] if len(sys.argv) > 2 else "The capital of France is"

model = edgesdk.load(path)  # or budget="120MB", rate=0.25, level=3
level = model.levels[model.level]
print(f"level {level.index} of 0 to {len(model.levels) - 1}: rate {level.rate:.2f}, {level.mapped_bytes} bytes mapped")

print(prompt, end="")
for piece in model.generate(prompt, max_tokens=24, stream=True):
    print(piece, end="", flush=True)
print()
