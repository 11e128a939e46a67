"""Training of models on judged collections and on documents alone. Only the commands that train import it."""
