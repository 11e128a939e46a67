"""A tiny CLIP model for tests, trained on coloured shapes and saved as sentence-transformers saves CLIP."""

import io
import json
from base64 import b64encode
from pathlib import Path

import torch
from PIL import Image as Pictures
from PIL import ImageDraw
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import CLIPModel
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPProcessor, CLIPTokenizer
from transformers import CLIPModel as Towers

COLOURS = ("red", "green", "blue", "yellow")
SHAPES = ("circle", "square", "triangle")
SIDE = 32


def drawn(colour: str, shape: str, *, side: int = SIDE, shift: int = 0, format: str = "PNG") -> bytes:
    """A picture file of the shape."""
    picture = Pictures.new("RGB", (side, side), "white")
    pen, low, high = ImageDraw.Draw(picture), side // 5 + shift, side - side // 5 + shift
    if shape == "triangle":
        pen.polygon([(side // 2 + shift, low), (low, high), (high, high)], fill=colour)
    else:
        (pen.ellipse if shape == "circle" else pen.rectangle)((low, low, high, high), fill=colour)
    file = io.BytesIO()
    picture.save(file, format)
    return file.getvalue()


def opened(content: bytes) -> Pictures.Image:
    return Pictures.open(io.BytesIO(content)).convert("RGB")


def data_uri(content: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{b64encode(content).decode()}"


def tiny_clip(folder: Path, *, seed: int = 0, steps: int = 300) -> Path:
    """Two towers of one layer, 32 dimensions, which know "red circle" from the others after a few seconds."""
    parts = folder / "parts"
    parts.mkdir(parents=True)
    letters = [chr(one) for one in range(ord("a"), ord("z") + 1)] + list("0123456789.,-")
    tokens = [*letters, *(one + "</w>" for one in letters)]
    merges = []
    for word in (*COLOURS, *SHAPES, "a"):
        pieces = [*word[:-1], word[-1] + "</w>"]
        while len(pieces) > 1:
            if (pieces[0], pieces[1]) not in merges:
                merges.append((pieces[0], pieces[1]))
                tokens.append(pieces[0] + pieces[1])
            pieces = [pieces[0] + pieces[1], *pieces[2:]]
    vocabulary = {token: at for at, token in enumerate(dict.fromkeys([*tokens, "<|startoftext|>", "<|endoftext|>"]))}
    (parts / "vocab.json").write_text(json.dumps(vocabulary))
    (parts / "merges.txt").write_text("#version: 0.2\n" + "\n".join(" ".join(pair) for pair in merges) + "\n")
    tokenizer = CLIPTokenizer.from_pretrained(parts, model_max_length=24)
    size = {"shortest_edge": SIDE}
    processor = CLIPProcessor(CLIPImageProcessorPil(size=size, crop_size={"height": SIDE, "width": SIDE}), tokenizer)
    torch.manual_seed(seed)
    torch.set_num_threads(1)  # of this thread; several wait for each other on so little work
    tower = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    ends = {"bos_token_id": vocabulary["<|startoftext|>"], "eos_token_id": vocabulary["<|endoftext|>"]}
    model = Towers(
        CLIPConfig(
            text_config={**tower, **ends, "vocab_size": len(vocabulary), "max_position_embeddings": 24},
            vision_config={**tower, "image_size": SIDE, "patch_size": 8},
            projection_dim=32,
        )
    )
    names = [(colour, shape) for colour in COLOURS for shape in SHAPES]
    inputs = tokenizer([f"{colour} {shape}" for colour, shape in names], padding=True, return_tensors="pt")
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    shifted = [[opened(drawn(*name, shift=shift)) for name in names] for shift in (-1, 0, 1)]
    pixels = [processor.image_processor(pictures, return_tensors="pt")["pixel_values"] for pictures in shifted]
    for step in range(steps):
        scores = model(**inputs, pixel_values=pixels[step % len(pixels)]).logits_per_text
        answers = torch.arange(len(names))
        loss = torch.nn.functional.cross_entropy(scores, answers) + torch.nn.functional.cross_entropy(scores.T, answers)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    model.save_pretrained(parts)
    processor.save_pretrained(parts)
    SentenceTransformer(modules=[CLIPModel(str(parts))]).save(str(folder / "model"))
    return folder / "model"
