"""What a reader of any result must know of the default data set, from data_card.toml."""

from ranjax.core.files import read_toml

DATA_CARD: dict[str, str] = read_toml("ranjax.data.radiographs", "data_card.toml")
