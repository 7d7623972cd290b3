"""How far what is served has moved from what the model was trained on."""
