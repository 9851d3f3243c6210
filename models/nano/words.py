"""The words of the world that is drawn. Each is one token of the language model, after a space."""

COLOURS = {
    "red": (220, 35, 35),
    "orange": (245, 140, 25),
    "yellow": (245, 220, 50),
    "green": (40, 160, 60),
    "blue": (40, 80, 220),
    "purple": (130, 50, 170),
    "pink": (250, 150, 195),
    "black": (20, 20, 20),
    "white": (250, 250, 250),
}
SHAPES = ["circle", "square", "triangle", "star", "cross", "heart"]
COUNTS = ["zero", "one", "two", "three", "four", "five"]
PLACES = ["left", "right", "top", "bottom", "middle"]
KINDS = ["shapes", "bar", "pie", "table", "word", "number"]
DIGITS = list("0123456789")
NAMES = (
    "cat dog sun car bus tree house book ball fish bird milk tea cup hat box key door road ship "
    "moon rain snow wind fire rock sand lake hill farm king game song gold iron wood work time home open"
).split()
FILLER = "."
VOCABULARY = [FILLER, *COLOURS, *SHAPES, *COUNTS, *PLACES, *KINDS, *DIGITS, *NAMES]
WORD_INDEX = {word: i for i, word in enumerate(VOCABULARY)}

# Embeddings of one tile, and so the words of a caption.
SLOTS = 16

# What a patch may show, for the supervision of patches: nothing, a thing, a character.
THINGS = ["nothing", *SHAPES, "bar", "slice", "line", *"0123456789abcdefghijklmnopqrstuvwxyz"]
THING_INDEX = {thing: i for i, thing in enumerate(THINGS)}
COLOUR_INDEX = {colour: i + 1 for i, colour in enumerate(COLOURS)}
