"""`python -m anime_tf` is `anime-tf`."""

from anime_tf.cli import main

if __name__ == "__main__":
    main()
