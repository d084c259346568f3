"""The partial likelihood of rows in risk sets: its value, score and information, with ties after Breslow or Efron."""
