"""The same dual encoder built from the parts of `transformers` with SDPA: what most people would train today.

It knows transformers' CLIP and how to put video through it; it measures nothing.

Axes: B clips, T frames, Y rows, X columns, C channels, N tokens, D width, L tokens of a text, E joint width.
"""

from __future__ import annotations

import torch
import transformers
from torch import Tensor, nn
from torch.nn.functional import normalize

from framefeed_models.dual_encoder import DualEncoder, DualEncoderConfig, DualEncoding
from framefeed_models.vit import ViTConfig
from framefeed_models.weights.key_table import export_weights
from framefeed_models.weights.transformers_clip import transformers_clip_table


class PeerDualEncoder(nn.Module):
    """transformers' `CLIPModel` over all patches of a clip at once, with a temporal embedding, as AVION's ViT.

    The same shapes as ours, with its blocks, attention (`sdpa`) and text tower. It starts from our weights.
    """

    def __init__(self, ours: DualEncoder) -> None:
        super().__init__()
        self.clip = transformers.CLIPModel(_config(ours.config))
        self.clip.load_state_dict(export_weights(ours.state_dict(), transformers_clip_table(ours.config)))
        grid = ours.config.video.grid
        self.frames, self.cells = grid.frames, grid.cells
        self.temporal_TD = nn.Parameter(torch.zeros(grid.frames, ours.config.video.stack.width))

    def forward(self, x_BCTYX: Tensor, tokens_BL: Tensor) -> DualEncoding:
        """Encode float clips and token numbers, as `DualEncoder.forward` does."""
        vision = self.clip.vision_model
        embeddings = vision.embeddings
        frames = x_BCTYX.transpose(1, 2).flatten(0, 1)
        patches_BND = embeddings.patch_embedding(frames).flatten(2).transpose(1, 2).unflatten(0, (-1, self.frames))
        positions_ND = embeddings.position_embedding.weight
        patches_BND = (patches_BND + positions_ND[1:] + self.temporal_TD[:, None]).flatten(1, 2)
        class_BD = (embeddings.class_embedding + positions_ND[0]).expand(len(x_BCTYX), 1, -1)
        hidden_BND = vision.pre_layrnorm(torch.cat((class_BD.to(patches_BND.dtype), patches_BND), dim=1))
        encoded_BND = vision.encoder(inputs_embeds=hidden_BND).last_hidden_state
        video_BE = self.clip.visual_projection(vision.post_layernorm(encoded_BND[:, 0]))
        text_BE = self.clip.text_projection(self.clip.text_model(input_ids=tokens_BL).pooler_output)
        return DualEncoding(
            video_BE=normalize(video_BE.float(), dim=-1),
            text_BE=normalize(text_BE.float(), dim=-1),
            scale=self.clip.logit_scale.exp(),
        )


def _config(config: DualEncoderConfig) -> transformers.CLIPConfig:
    video, text = config.video, config.text
    assert isinstance(video, ViTConfig)
    vision = {
        "image_size": video.grid.height_px,
        "patch_size": video.grid.patch_px,
        "hidden_size": video.stack.width,
        "num_hidden_layers": video.stack.depth,
        "num_attention_heads": video.stack.heads,
        "intermediate_size": int(video.stack.width * video.stack.mlp_ratio),
        "hidden_act": video.stack.activation,
        "layer_norm_eps": video.stack.norm_eps,
    }
    words = {
        "vocab_size": text.vocabulary,
        "max_position_embeddings": text.context,
        "hidden_size": text.stack.width,
        "num_hidden_layers": text.stack.depth,
        "num_attention_heads": text.stack.heads,
        "intermediate_size": int(text.stack.width * text.stack.mlp_ratio),
        "hidden_act": text.stack.activation,
        "layer_norm_eps": text.stack.norm_eps,
        "bos_token_id": text.vocabulary - 2,
        "eos_token_id": text.vocabulary - 1,
    }
    clip = transformers.CLIPConfig(vision_config=vision, text_config=words, projection_dim=config.joint)
    clip._attn_implementation = "sdpa"
    return clip
