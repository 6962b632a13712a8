"""How good a model is: the published scores of what it says of a data set's clips, and the verb that reckons them."""
