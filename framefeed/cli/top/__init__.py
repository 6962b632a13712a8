"""The verb `top`: what the metrics pages of trainers and servers say, on one screen. Only the contract is known here."""
