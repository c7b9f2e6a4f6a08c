"""Source adapters: CelebAMask-HQ, FFHQ, plain folders, drawn portraits."""
