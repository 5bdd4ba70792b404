"""The method `text_encoder`: only the text encoders learn, through the loss of the frozen U-Net."""
