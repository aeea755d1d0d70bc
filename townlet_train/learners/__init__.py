"""The only code that knows torch, and open to plugin authors: networks, gradients, and the loops that train them."""
