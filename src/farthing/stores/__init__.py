"""The ledger's stores: memory (the reference) and SQLite, behind one contract."""

from .urls import default_path as default_path
from .urls import default_url as default_url
from .urls import open_store as open_store
from .urls import path_in as path_in
from .urls import url_of as url_of
