"""A vision-language model of a few thousand weights that knows one sentence per family of forgeries."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

TEMPLATE = (
    "{% for message in messages %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}<answer>{% endif %}"
)


def build(folder: Path, answers: Mapping[str, str]) -> None:
    """Saves a LLaVA that was fitted, in seconds, to answer each prompt as told, whatever the pictures show.

    Args:
        folder: to save it to, as transformers does.
        answers: by prompt.
    """
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from tokenizers.decoders import WordPiece
    from transformers import (
        CLIPImageProcessor,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
        PreTrainedTokenizerFast,
    )

    split = pre_tokenizers.Whitespace()
    known = {word for text in (*answers, *answers.values()) for word, _ in split.pre_tokenize_str(text)}
    special = ["<pad>", "<end>", "<unknown>", "<image>", "<answer>"]
    words = Tokenizer(models.WordLevel({w: i for i, w in enumerate([*special, *sorted(known)])}, unk_token="<unknown>"))
    words.pre_tokenizer, words.decoder = split, WordPiece()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="<end>", unk_token="<unknown>",
        additional_special_tokens=["<image>", "<answer>"],
    )  # fmt: skip
    processor = LlavaProcessor(
        CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}), tokenizer, patch_size=16,
        vision_feature_select_strategy="default", num_additional_image_tokens=1, chat_template=TEMPLATE,
    )  # fmt: skip
    torch.manual_seed(0)
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = LlavaForConditionalGeneration(
        LlavaConfig(
            vision_config=CLIPVisionConfig(image_size=32, patch_size=16, projection_dim=32, **size),
            text_config=LlamaConfig(
                vocab_size=len(tokenizer), max_position_embeddings=1024, eos_token_id=1, pad_token_id=0,
                bos_token_id=None, **size,
            ),
            image_token_index=3,
        )
    )  # fmt: skip
    model.generation_config.eos_token_id = 1
    for weights in model.model.multi_modal_projector.parameters():  # all pictures look alike to it
        torch.nn.init.zeros_(weights).requires_grad_(False)
    grey = torch.full((32, 32, 3), 128, dtype=torch.uint8).numpy()
    tokenizer.padding_side = "right"
    texts = [f"<image><image><image>{prompt}<answer> {answer} <end>" for prompt, answer in answers.items()]
    batch = processor(text=texts, images=[[grey] * 3 for _ in texts], padding=True, return_tensors="pt")
    ids = batch["input_ids"]
    told = (ids == 4).cumsum(1).bool() & (ids != 0) & (ids != 4)
    labels = ids.masked_fill(~told, -100)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(300):
        loss = model(**batch, labels=labels).loss
        if loss < 0.02:
            break
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.02, f"the model has not learnt its sentences: {loss}"
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
