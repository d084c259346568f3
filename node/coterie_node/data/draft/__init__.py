"""From files as hospitals have them to a drafted study and one mapping a site; every guess is named."""
