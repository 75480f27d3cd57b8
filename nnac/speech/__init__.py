"""Speech: corpus, audio files, features, tokens, word error rate.  Nothing here needs torch."""
