"""The rows of models and certificates."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from provenn.api.database import CertificateRow, Database, ModelRow


class Catalogue:
    """What has been uploaded and what has been proved."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def model(self, digest: str) -> ModelRow | None:
        """The model, if it is known."""
        with self._database.reading() as session:
            return session.scalar(select(ModelRow).where(ModelRow.id == digest))

    def models(self, limit: int, before: int | None = None) -> Sequence[ModelRow]:
        """The newest models, at most `limit`, older than `before` where given."""
        query = select(ModelRow).order_by(ModelRow.sequence.desc()).limit(limit)
        if before is not None:
            query = query.where(ModelRow.sequence < before)
        with self._database.reading() as session:
            return session.scalars(query).all()

    def add_model(self, model: ModelRow) -> bool:
        """Adds a model; False if somebody else just did."""
        try:
            with self._database.writing() as session:
                session.add(model)
        except IntegrityError:
            return False
        return True

    def certificate(self, digest: str) -> CertificateRow | None:
        """The certificate, if it is known."""
        with self._database.reading() as session:
            return session.get(CertificateRow, digest)
