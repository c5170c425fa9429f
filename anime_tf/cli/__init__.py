"""The commands: each parses, calls one library function, says where the result lies.

`main` is the entry point of the program, `cli` the group of all its commands.
"""

import click

from anime_tf import __version__
from anime_tf.cli import data, draw, export, recognise, serve, serving
from anime_tf.cli.options import SETTINGS, Group, set_up_output


def main() -> None:
    """Runs the program; the entry point of `anime-tf`."""
    cli(prog_name="anime-tf")


@click.group(cls=Group, context_settings=SETTINGS)
@click.version_option(__version__, prog_name="anime-tf")
def cli():
    """Recognise and draw your own anime characters.

    Sort pictures into folders, data/all_characters/NAME/, then:

    \b
      anime-tf data check          what is in the folders, what is wrong with it
      anime-tf train               learn the characters
      anime-tf predict PICTURES    name them in new pictures
      anime-tf draw                learn to draw one of them
      anime-tf generate            draw
      anime-tf export              take a model elsewhere
      anime-tf serve-config        serve it by TensorFlow Serving
      anime-tf serve               answer over HTTP
      anime-tf ui                  a page to play with
    """
    set_up_output()


cli.add_command(data.data)
cli.add_command(recognise.train)
cli.add_command(recognise.evaluate)
cli.add_command(recognise.predict)
cli.add_command(recognise.sort)
cli.add_command(draw.draw)
cli.add_command(draw.draw_eval)
cli.add_command(draw.generate)
cli.add_command(export.export)
cli.add_command(serving.serve_config)
cli.add_command(serve.serve)
cli.add_command(serve.ui)
