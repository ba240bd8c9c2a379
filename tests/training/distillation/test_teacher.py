"""Teachers of every origin give the same embeddings and masks as the implementation that they come from."""

import re
from pathlib import Path

import pytest
import torch
from transformers import SamConfig, SamMaskDecoderConfig, SamModel, SamPromptEncoderConfig, SamVisionConfig

import reference.training.distillation.teacher as teacher_module
from reference.errors import CheckpointError
from reference.mobile_sam import MobileSam
from reference.training.distillation.teacher import give_decoder, load_teacher, teacher_of

SIZE = 64


@pytest.fixture(scope="module")
def transformers_sam() -> SamModel:
    torch.manual_seed(0)
    vision = SamVisionConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=SIZE,
        mlp_dim=128,
        global_attn_indexes=[1],
        window_size=2,
    )
    prompts = SamPromptEncoderConfig(image_size=SIZE, image_embedding_size=SIZE // 16)
    # transformers' decoder has eps 1e-6 in its LayerNorms where SAM has 1e-5; the same value makes the comparison
    # sharp.
    model = SamModel(
        SamConfig(
            vision_config=vision,
            prompt_encoder_config=prompts,
            mask_decoder_config=SamMaskDecoderConfig(layer_norm_eps=1e-5),
        )
    )
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1) if parameter.ndim > 1 else torch.nn.init.normal_(parameter, 0.5, 0.1)
    return model.eval()


def test_our_decoder_with_the_teachers_weights_gives_the_teachers_masks(transformers_sam: SamModel) -> None:
    teacher = teacher_of(transformers_sam, "small")
    judge = MobileSam(image_size=SIZE).eval()
    give_decoder(judge, teacher.decoder, "small")
    images = torch.randn(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    embedding = teacher.embed(images)
    points = torch.tensor([[[20.0, 33.0]], [[50.0, 7.0]]])
    with torch.inference_mode():
        masks, quality = judge.predict_masks(embedding, (points, torch.ones(2, 1)))
        theirs = transformers_sam(
            image_embeddings=embedding,
            input_points=points[None],
            input_labels=torch.ones(1, 2, 1, dtype=torch.long),
            multimask_output=True,
        )
    # Two implementations of the same float32 arithmetic; logits have a deviation of about one.
    torch.testing.assert_close(masks[:, 1:], theirs.pred_masks[0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(quality[:, 1:], theirs.iou_scores[0], atol=1e-4, rtol=1e-4)
    assert masks.std() > 0.05


def test_an_original_file_converts_to_the_same_teacher(
    transformers_sam: SamModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def inverse(name: str) -> str:
        name = name.replace("vision_encoder.", "image_encoder.").replace(
            ".patch_embed.projection.", ".patch_embed.proj."
        )
        name = re.sub(
            r"neck\.(conv1|layer_norm1|conv2|layer_norm2)",
            lambda m: f"neck.{['conv1', 'layer_norm1', 'conv2', 'layer_norm2'].index(m[1])}",
            name,
        )
        return re.sub(r"\.layer_norm([12])\.", r".norm\1.", name).replace(".layers.", ".blocks.")

    direct = teacher_of(transformers_sam, "small")
    vision = {inverse(k): v for k, v in transformers_sam.state_dict().items() if k.startswith("vision_encoder.")}
    path = tmp_path / "sam_vit_small.pth"
    torch.save({**vision, **direct.decoder}, path)
    monkeypatch.setattr(teacher_module, "ORIGINAL_FILES", {"small": (32, 2, 2, (1,))})
    monkeypatch.setattr(
        "transformers.SamVisionConfig", lambda **options: SamVisionConfig(**options, image_size=SIZE, window_size=2)
    )
    converted = load_teacher(str(path))
    assert converted.id == direct.id
    images = torch.randn(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(converted.embed(images), direct.embed(images), atol=0, rtol=0)


def test_a_mobile_sam_checkpoint_is_a_teacher_too(teacher_path: Path) -> None:
    teacher = load_teacher(str(teacher_path), SIZE)
    student = teacher.student("mobilenetv3_small_050.lamb_in1k")
    assert teacher.embed(torch.zeros(2, 3, SIZE, SIZE)).shape == (2, 256, 4, 4)
    own = student.state_dict()
    assert all(torch.equal(own[name], value) for name, value in teacher.decoder.items())


def test_a_missing_teacher_says_where_to_get_one(tmp_path: Path) -> None:
    for source in (str(tmp_path / "sam_vit_h.pth"), str(tmp_path / "no_folder")):
        with pytest.raises(CheckpointError, match="segment-anything"):
            load_teacher(source)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "sam_vit_x.pth"
    torch.save({"image_encoder.blocks.0.x": torch.zeros(1), "image_encoder.pos_embed": torch.zeros(1, 4, 4, 17)}, path)
    with pytest.raises(CheckpointError, match="has a ViT of width 17, expected 1280, 1024 or 768"):
        load_teacher(str(path))
