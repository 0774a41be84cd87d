"""The documents: pages made from the code, the site made of all pages, and what runs them."""
