"""D-CLEF's evaluation on one machine: siloed, pooled, federated and ensemble models over permuted trials."""
