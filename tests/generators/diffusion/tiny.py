"""Tiny pipelines with random weights, saved in the layout of the hub: every class of the table, made in a second.

`python tiny.py NAME FOLDER` saves one by hand, to be added with `mmtt weights add NAME FOLDER`.
"""

from __future__ import annotations

import json
import sys
import zlib
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import diffusers
import tokenizers
import torch
import transformers
from tokenizers import models, pre_tokenizers, trainers

WIDTH = 32
"""Of the text encoders."""
START, END = "<|startoftext|>", "<|endoftext|>"


@cache
def corpus() -> str:
    """The words that the tiny tokenizers know as one token: those of our prompts."""
    return files("generators.diffusion").joinpath("prompts.toml").read_text("utf-8").lower()


@cache
def merges(suffix: str) -> tuple[tuple[str, str], ...]:
    """Byte-pair merges learnt from the corpus; CLIP's mark the end of a word by a suffix."""
    ends = {"end_of_word_suffix": suffix} if suffix else {}
    tokenizer = tokenizers.Tokenizer(models.BPE(**ends))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()]
        if suffix
        else [pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    trainer = trainers.BpeTrainer(vocab_size=6000, show_progress=False, **ends)
    tokenizer.train_from_iterator([corpus()], trainer)
    return tuple(tuple(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"])


def vocabulary(suffix: str, *special: str) -> dict[str, int]:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*alphabet, *(f"{one}{suffix}" for one in alphabet if suffix), *(a + b for a, b in merges(suffix))]
    return {word: i for i, word in enumerate(dict.fromkeys([*words, *special]))}


def clip_tokenizer(pad: str = END) -> Any:
    return transformers.CLIPTokenizer(
        vocab=vocabulary("</w>", START, END), merges=list(merges("</w>")), pad_token=pad, model_max_length=77
    )


def t5_tokenizer() -> Any:
    words = sorted({f"\u2581{word}" for word in corpus().split()})
    letters = sorted(set(corpus()) - {" ", "\n"})
    vocab = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -20.0), ("\u2581", -4.0)]
    vocab += [(word, -5.0) for word in words] + [(one, -8.0) for one in letters if one not in dict(vocab)]
    return transformers.T5Tokenizer(vocab=vocab, extra_ids=0, model_max_length=512)


def qwen_tokenizer() -> Any:
    special = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    tokenizer = transformers.Qwen2Tokenizer(vocab=vocabulary("", *special), merges=list(merges("")))
    tokenizer.add_special_tokens({"additional_special_tokens": list(special[1:])})
    tokenizer.chat_template = (
        "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
        "{% endfor %}<|im_start|>assistant\n"
    )
    return tokenizer


def clip(tokenizer: Any, act: str = "quick_gelu", projected: bool = False) -> Any:
    config = transformers.CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=77,
        projection_dim=WIDTH,
        hidden_act=act,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return (transformers.CLIPTextModelWithProjection if projected else transformers.CLIPTextModel)(config).eval()


def t5(tokenizer: Any) -> Any:
    config = transformers.T5Config(
        vocab_size=len(tokenizer), d_model=WIDTH, d_kv=8, d_ff=64, num_layers=2, num_heads=4, decoder_start_token_id=0
    )
    return transformers.T5EncoderModel(config).eval()


def vae(latents: int = 4, scaling: float = 0.13025, **config: Any) -> Any:
    return diffusers.AutoencoderKL(
        block_out_channels=(8, 8, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=latents,
        sample_size=64,
        scaling_factor=scaling,
        **config,
    ).eval()


def unet(channels: int, width: int, **config: Any) -> Any:
    return diffusers.UNet2DConditionModel(
        sample_size=8,
        in_channels=channels,
        out_channels=4,
        block_out_channels=(32, 64),
        layers_per_block=1,
        norm_num_groups=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(2, 4),
        cross_attention_dim=width,
        **config,
    ).eval()


EULER = {
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "timestep_spacing": "leading",
    "steps_offset": 1,
}


def sdxl(folder: Path, channels: int = 9) -> None:
    one, two = clip_tokenizer(), clip_tokenizer(pad="!")
    diffusers.StableDiffusionXLInpaintPipeline(
        vae=vae(force_upcast=True),
        text_encoder=clip(one),
        text_encoder_2=clip(two, "gelu", projected=True),
        tokenizer=one,
        tokenizer_2=two,
        unet=unet(
            channels,
            2 * WIDTH,
            transformer_layers_per_block=(1, 1),
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=6 * 8 + WIDTH,
        ),
        scheduler=diffusers.EulerDiscreteScheduler(**EULER),
        add_watermarker=False,
    ).save_pretrained(folder)


def sd(folder: Path, prediction: str = "epsilon") -> None:
    tokenizer = clip_tokenizer()
    kind = diffusers.PNDMScheduler if prediction == "epsilon" else diffusers.DDIMScheduler
    extra = {"skip_prk_steps": True} if prediction == "epsilon" else {"clip_sample": False}
    shared = {k: v for k, v in EULER.items() if k != "timestep_spacing"}
    diffusers.StableDiffusionInpaintPipeline(
        vae=vae(scaling=0.18215),
        text_encoder=clip(tokenizer),
        tokenizer=tokenizer,
        unet=unet(9, WIDTH),
        scheduler=kind(**shared, prediction_type=prediction, set_alpha_to_one=False, **extra),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)


def flow(**config: Any) -> Any:
    return diffusers.FlowMatchEulerDiscreteScheduler(**config)


def sd3(folder: Path) -> None:
    one, two, three = clip_tokenizer(), clip_tokenizer(pad="!"), t5_tokenizer()
    diffusers.StableDiffusion3InpaintPipeline(
        transformer=diffusers.SD3Transformer2DModel(
            sample_size=8,
            patch_size=2,
            in_channels=16,
            out_channels=16,
            num_layers=1,
            attention_head_dim=8,
            num_attention_heads=4,
            joint_attention_dim=WIDTH * 2,
            caption_projection_dim=32,
            pooled_projection_dim=WIDTH * 2,
            pos_embed_max_size=96,
        ).eval(),
        scheduler=flow(shift=3.0),
        vae=vae(16, 1.5305, shift_factor=0.0609, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=clip(one, projected=True),
        tokenizer=one,
        text_encoder_2=clip(two, "gelu", projected=True),
        tokenizer_2=two,
        text_encoder_3=transformers.T5EncoderModel(
            transformers.T5Config(
                vocab_size=len(three), d_model=WIDTH * 2, d_kv=8, d_ff=64, num_layers=2, num_heads=4,
                decoder_start_token_id=0,
            )
        ).eval(),
        tokenizer_3=three,
    ).save_pretrained(folder)  # fmt: skip


def flux(folder: Path, cls: Any = diffusers.FluxInpaintPipeline, distilled: bool = True) -> None:
    one, two = clip_tokenizer(), t5_tokenizer()
    filled = cls is diffusers.FluxFillPipeline
    cls(
        scheduler=flow(shift=3.0, use_dynamic_shifting=distilled),
        vae=vae(4, 0.3611, shift_factor=0.1159, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=clip(one),
        tokenizer=one,
        text_encoder_2=t5(two),
        tokenizer_2=two,
        # Fill sees beside the 4 latents x 2x2 patch the masked latents and 8x8 mask pixels per latent.
        transformer=diffusers.FluxTransformer2DModel(
            patch_size=1,
            in_channels=16 + 16 + 256 if filled else 16,
            out_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=WIDTH,
            pooled_projection_dim=WIDTH,
            axes_dims_rope=(4, 4, 8),
            guidance_embeds=distilled,
        ).eval(),
    ).save_pretrained(folder)


def kandinsky(folder: Path) -> None:
    diffusers.KandinskyV22InpaintPipeline(
        unet=diffusers.UNet2DConditionModel(
            in_channels=9,
            out_channels=8,
            addition_embed_type="image",
            down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
            up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
            mid_block_type="UNetMidBlock2DSimpleCrossAttn",
            block_out_channels=(32, 64),
            layers_per_block=1,
            encoder_hid_dim=WIDTH,
            encoder_hid_dim_type="image_proj",
            cross_attention_dim=WIDTH,
            attention_head_dim=4,
            resnet_time_scale_shift="scale_shift",
            class_embed_type=None,
        ).eval(),
        scheduler=diffusers.DDPMScheduler(
            beta_schedule="linear", beta_start=0.00085, beta_end=0.012, clip_sample=False, thresholding=False
        ),
        movq=diffusers.VQModel(
            block_out_channels=(32, 64, 64, 64),
            down_block_types=("DownEncoderBlock2D",) * 3 + ("AttnDownEncoderBlock2D",),
            up_block_types=("AttnUpDecoderBlock2D",) + ("UpDecoderBlock2D",) * 3,
            in_channels=3,
            out_channels=3,
            latent_channels=4,
            layers_per_block=1,
            norm_num_groups=8,
            norm_type="spatial",
            num_vq_embeddings=12,
            vq_embed_dim=4,
        ).eval(),
    ).save_pretrained(folder)


def kandinsky_prior(folder: Path) -> None:
    tokenizer = clip_tokenizer()
    diffusers.KandinskyV22PriorPipeline(
        prior=diffusers.PriorTransformer(
            num_attention_heads=2, attention_head_dim=12, embedding_dim=WIDTH, num_layers=1, clip_embed_dim=WIDTH
        ).eval(),
        image_encoder=transformers.CLIPVisionModelWithProjection(
            transformers.CLIPVisionConfig(
                hidden_size=WIDTH, image_size=32, projection_dim=WIDTH, intermediate_size=37, patch_size=16,
                num_attention_heads=4, num_hidden_layers=1,
            )
        ).eval(),
        text_encoder=clip(tokenizer, projected=True),
        tokenizer=tokenizer,
        scheduler=diffusers.UnCLIPScheduler(
            variance_type="fixed_small_log", prediction_type="sample", num_train_timesteps=1000, clip_sample_range=10.0
        ),
        image_processor=transformers.CLIPImageProcessor(size=32, crop_size=32),
    ).save_pretrained(folder)  # fmt: skip


def qwen_image(folder: Path) -> None:
    tokenizer = qwen_tokenizer()
    config = transformers.Qwen2_5_VLConfig(
        text_config={
            "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
            "num_key_value_heads": 2, "vocab_size": len(tokenizer), "max_position_embeddings": 2048,
            "rope_scaling": {"mrope_section": [1, 1, 2], "rope_type": "default", "type": "default"},
            "rope_theta": 1e6, "bos_token_id": None, "eos_token_id": None, "pad_token_id": None,
        },
        vision_config={
            "depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 16,
        },
        vision_start_token_id=0, vision_end_token_id=1, vision_token_id=2, image_token_id=3, video_token_id=4,
    )  # fmt: skip
    diffusers.QwenImageInpaintPipeline(
        scheduler=flow(use_dynamic_shifting=True, shift=1.0, time_shift_type="exponential"),
        vae=diffusers.AutoencoderKLQwenImage(
            base_dim=12,
            z_dim=4,
            dim_mult=[1, 2, 2, 2],
            num_res_blocks=1,
            temperal_downsample=[False, True, True],
            latents_mean=[0.0] * 4,
            latents_std=[1.0] * 4,
        ).eval(),
        text_encoder=transformers.Qwen2_5_VLForConditionalGeneration(config).eval(),
        tokenizer=tokenizer,
        transformer=diffusers.QwenImageTransformer2DModel(
            patch_size=2,
            in_channels=16,
            out_channels=4,
            num_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=16,
            guidance_embeds=False,
            axes_dims_rope=(4, 6, 6),
        ).eval(),
    ).save_pretrained(folder)


def z_image(folder: Path) -> None:
    tokenizer = qwen_tokenizer()
    diffusers.ZImageInpaintPipeline(
        scheduler=flow(shift=3.0, use_dynamic_shifting=False),
        vae=vae(16, 0.3611, shift_factor=0.1159, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=transformers.Qwen3Model(
            transformers.Qwen3Config(
                vocab_size=len(tokenizer), hidden_size=WIDTH, intermediate_size=64, num_hidden_layers=2,
                num_attention_heads=2, num_key_value_heads=2, head_dim=16, max_position_embeddings=1024,
            )
        ).eval(),
        tokenizer=tokenizer,
        transformer=diffusers.ZImageTransformer2DModel(
            all_patch_size=(2,), all_f_patch_size=(1,), in_channels=16, dim=32, n_layers=1, n_refiner_layers=1,
            n_heads=2, n_kv_heads=2, cap_feat_dim=WIDTH, axes_dims=[4, 6, 6], axes_lens=[256, 64, 64],
        ).eval(),
    ).save_pretrained(folder)  # fmt: skip


def lora(path: Path) -> None:
    """A LoRA of the 9-channel UNet's attention, in diffusers' own naming."""
    from diffusers.utils import convert_state_dict_to_diffusers
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    network = unet(
        9, 2 * WIDTH, transformer_layers_per_block=(1, 1), use_linear_projection=True, addition_embed_type="text_time",
        addition_time_embed_dim=8, projection_class_embeddings_input_dim=6 * 8 + WIDTH,
    )  # fmt: skip
    network.add_adapter(LoraConfig(r=2, lora_alpha=2, init_lora_weights=False, target_modules=["to_q", "to_v"]))
    layers = convert_state_dict_to_diffusers(get_peft_model_state_dict(network))
    diffusers.StableDiffusionXLInpaintPipeline.save_lora_weights(path.parent, layers, weight_name=path.name)


BUILD: dict[str, Callable[[Path], None]] = {
    "sdxl-inpaint": sdxl,
    "sdxl-base": lambda folder: sdxl(folder, channels=4),
    "sdxl-turbo": lambda folder: sdxl(folder, channels=4),
    "sdxl-vae-fp16-fix": lambda folder: vae(force_upcast=False).save_pretrained(folder),
    "lcm-lora-sdxl": lambda folder: lora(folder / "pytorch_lora_weights.safetensors"),
    "sdxl-lightning": lambda folder: lora(folder / "sdxl_lightning_4step_lora.safetensors"),
    "sd15-inpaint": sd,
    "sd2-inpaint": lambda folder: sd(folder, "v_prediction"),
    "sd3-medium": sd3,
    "flux-dev": flux,
    "flux-schnell": lambda folder: flux(folder, distilled=False),
    "flux-fill": lambda folder: flux(folder, diffusers.FluxFillPipeline),
    "kandinsky-2-2": kandinsky,
    "kandinsky-2-2-prior": kandinsky_prior,
    "qwen-image": qwen_image,
    "z-image-turbo": z_image,
}
"""By name in the catalogue. Adapters are a file in the folder, all else is the folder."""


def build(name: str, folder: Path, seed: int = 0) -> Path:
    """Saves one, and returns what `mmtt weights add` takes: the folder, or the one file in it."""
    folder.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed + zlib.crc32(name.encode()))  # a VAE is not by chance the one in a pipeline
        BUILD[name](folder)
    made = list(folder.iterdir())
    return made[0] if len(made) == 1 and made[0].suffix == ".safetensors" else folder


if __name__ == "__main__":
    print(build(sys.argv[1], Path(sys.argv[2])))  # noqa: T201
