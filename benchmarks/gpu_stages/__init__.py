"""What `gpu_check.py` does, a file a stage: each stands alone and tells what it found as rows."""
