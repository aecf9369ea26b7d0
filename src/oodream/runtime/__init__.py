"""What answers need and PyTorch is no part of: pictures as arrays, answers, guarantees."""
