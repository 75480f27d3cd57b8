"""What a hybrid recogniser needs besides its network: lexicon, HMM topology, states, alignments, decoding graph.

In plain NumPy: nothing here trains a network or runs one.  Network scores come in as log-probabilities of states, from
whichever executor made them.  Sources: the HMM recogniser as Rabiner (1989) and Young et al. (the HTK book) describe
it, the hybrid as Bourlard and Morgan (1994), decoding graphs as Mohri, Pereira and Riley (2002).
"""
