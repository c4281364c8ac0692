"""The rows of models and certificates: each belongs to a project, and is there for nobody else."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from provenn.api.database import Database
from provenn.api.tables import CertificateRow, ModelRow


def anything(session: Session) -> None:
    """Whatever is added may be."""


class Catalogue:
    """What has been uploaded and what has been proved."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def model(self, project: str, digest: str) -> ModelRow | None:
        """The model, if the project has it."""
        query = select(ModelRow).where(ModelRow.project_id == project, ModelRow.id == digest)
        with self._database.reading() as session:
            return session.scalar(query)

    def models(self, project: str, limit: int, before: str | None = None) -> Sequence[ModelRow]:
        """The project's newest models, at most `limit`, older than the model `before` where given."""
        query = select(ModelRow).where(ModelRow.project_id == project).order_by(ModelRow.sequence.desc()).limit(limit)
        if before is not None:
            last = select(ModelRow.sequence).where(ModelRow.project_id == project, ModelRow.id == before)
            query = query.where(ModelRow.sequence < last.scalar_subquery())
        with self._database.reading() as session:
            return session.scalars(query).all()

    def add_model(self, model: ModelRow, allowed: Callable[[Session], None] = anything) -> bool:
        """Adds a model, if `allowed` does not raise in the same transaction; False if somebody else just did."""
        try:
            with self._database.writing() as session:
                allowed(session)
                session.add(model)
        except IntegrityError:
            return False
        return True

    def certificate(self, project: str, digest: str) -> CertificateRow | None:
        """The certificate, if the project has it."""
        with self._database.reading() as session:
            return session.get(CertificateRow, (project, digest))
