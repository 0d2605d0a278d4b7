"""The bundled worlds: who plays while their data is collected, and what is measured of them."""
