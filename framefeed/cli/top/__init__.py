"""The verb `top`: what the metrics pages of trainers and servers say, on one screen. It knows only the contract."""
